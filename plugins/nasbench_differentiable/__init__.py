"""Methods that learn weights of options beside those of the supernet, by gradient or by contribution."""
