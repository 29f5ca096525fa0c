"""Contract fuzzing: valid and invalid requests, whose responses must conform to the contract."""
