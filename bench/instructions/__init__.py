"""How many instructions the core runs for fixed work: a gate that a busy machine cannot move."""
