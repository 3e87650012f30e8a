"""What, when, to whom: lifecycle, audience, ledger, sending, content, banners, rotation, counts."""
