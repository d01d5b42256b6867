"""What the Postgres tier promises beyond the contract, against a real server; asyncio only."""
