"""TLS engines behind one table of function pointers (engine.pxd), one file per library."""
