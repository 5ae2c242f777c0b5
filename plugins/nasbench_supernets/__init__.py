"""Better training of single-path supernets: SUMNAS, PA&DA, NSAS, Cream."""
