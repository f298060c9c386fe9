"""What every floor may use: errors, seeds, trees of state, the clock."""
