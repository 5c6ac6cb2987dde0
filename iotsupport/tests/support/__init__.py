"""What tests start, wait for and look through: servers, brokers, databases, browsers; and how a run is put together."""
