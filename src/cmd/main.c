/* main.c: finds the verb and runs it. */
#include <stdio.h>

int main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	fputs("objmap: no verb in this build\n", stderr);
	return 2;
}
