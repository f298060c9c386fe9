"""Networks: from observations to parameters of policies and to values; torch only."""
