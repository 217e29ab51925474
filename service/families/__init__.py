"""The ways of being asked. A family is pure: it can be tested without a server and knows no engine and no protocol."""
