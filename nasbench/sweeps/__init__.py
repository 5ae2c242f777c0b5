"""Many runs: the matrix of them, where they run, what a person sees meanwhile."""
