# Test programs are compiled without optimisation, whatever CFLAGS says: an optimising
# compiler takes longer over Criterion's assertions than over all that they test.
# What has much to compute stands in a library (libcontract.la), out of reach of this.
tests/%.o: CFLAGS += -O0 -U_FORTIFY_SOURCE
