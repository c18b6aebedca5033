"""Numbers that need no process and no model: phi functions, quadrature, interpolation weights and random streams."""
