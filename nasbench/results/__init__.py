"""What becomes of records: tables, comparisons, pages, papers' tables measured again, exported networks."""
