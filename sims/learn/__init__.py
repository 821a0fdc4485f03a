"""`collegium bench learn`: does it learn, alone, together and centrally, on real education data, at each ε."""
