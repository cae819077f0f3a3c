"""What work costs: meters, money by a rate card, budgets."""
