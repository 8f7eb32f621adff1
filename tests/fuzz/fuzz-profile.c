/* fuzz-profile.c: any text as ~/.aws/config and ~/.aws/credentials. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/s3/credentials.h"
#include "backends/s3/profile.h"
#include "src/log.h"
#include "tests/fuzz/fuzz.h"

static int fd;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char path[64];

	fd = memfd_create("profile", MFD_CLOEXEC);
	expect(fd >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	setenv("AWS_CONFIG_FILE", path, 1);
	setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
	return log_open("/dev/null", LOG_LEVEL_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	static const char *const names[] = { "region", "s3.addressing_style", "role_arn",
					     "aws_secret_access_key" };
	struct profiles *profiles;
	char why[256] = "";
	const char *value;

	expect(ftruncate(fd, 0) == 0);
	expect(pwrite(fd, data, count, 0) == (ssize_t)count);
	if (profiles_read(&profiles, why, sizeof(why))) {
		expect(!profiles && why[0]);
		return 0;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		value = profile_value(profiles, "default", names[i]);
		expect(!value || (value[0] && strlen(value) <= count));
		expect(!value || profile_exists(profiles, "default"));
	}
	profile_endpoint(profiles, "default", "s3");
	profiles_free(profiles);
	return 0;
}
