"""Which of them: conditions, engines, evaluation, membership, schedule."""
