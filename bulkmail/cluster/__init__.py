"""One PostgreSQL as the store of many workers: rows, marks, outcomes, leases, and the only clock."""
