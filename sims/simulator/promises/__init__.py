"""The checks of the promises, by what they look at. Each names the promise that is broken."""
