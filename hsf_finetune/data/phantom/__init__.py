"""The phantom cohort: scans whose true labels are known."""
