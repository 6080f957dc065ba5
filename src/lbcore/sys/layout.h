/* Compiled into every module by setup.py (-include): which contracts (.pxd and .h files) it was built
 * from. lbcore/_layout.py refuses modules that disagree, since C would let them misread each other's
 * structs in silence. */
#ifdef LBCORE_LAYOUT
__attribute__((visibility("default"), used)) const char lbcore_layout[] = LBCORE_LAYOUT;
#endif
