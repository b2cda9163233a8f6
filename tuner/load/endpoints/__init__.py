"""The endpoints that a load may go to: where each is, and the form in which it takes what is said."""
