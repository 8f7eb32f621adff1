/* fake-statfs.c: preloaded, lets every file lie on the kind of file system that
 * FAKE_STATFS names by its number, as no mount of a test's own could. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/vfs.h>

#define FAKE(name, type, subject)						\
int name(subject where, struct type *fs)					\
{										\
	int (*real)(subject, struct type *) =					\
		(int (*)(subject, struct type *))dlsym(RTLD_NEXT, #name);	\
	const char *fake = getenv("FAKE_STATFS");				\
	int error = real(where, fs);						\
										\
	if (error == 0 && fake)							\
		fs->f_type = (__typeof__(fs->f_type))strtoul(fake, NULL, 0);	\
	return error;								\
}

FAKE(statfs, statfs, const char *)
FAKE(fstatfs, statfs, int)
FAKE(statfs64, statfs64, const char *)
FAKE(fstatfs64, statfs64, int)
