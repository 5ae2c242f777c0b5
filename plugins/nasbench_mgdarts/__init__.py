"""MG-DARTS: operations, filters and weights searched together; and DASS, its closest relative."""
