"""What only measures: scores of feature descriptions, and the roles of the grammar behind them."""
