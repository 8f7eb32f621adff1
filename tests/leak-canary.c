/* leak-canary.c: leaks on purpose, to prove that the leak check can fail. */
#include <stdlib.h>

int main(void)
{
	void *volatile lost = malloc(4242);

	lost = NULL;
	return lost != NULL;
}
