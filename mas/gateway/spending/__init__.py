"""What calls take: prices, the ledger, the budget."""
