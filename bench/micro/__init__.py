"""What single parts of the core cost, in loops of C without the interpreter."""
