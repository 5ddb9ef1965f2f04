"""What projection costs in accuracy: both methods on small trained networks, over seeds, in one table."""
