/* profile.c: reads ~/.aws/config and ~/.aws/credentials.
 *
 * Both are lines of NAME = VALUE in sections.  Indented lines below "NAME =" are
 * settings of their own, called NAME.SUBNAME here; below "NAME = VALUE" they go on
 * with the value.  '#' or ';' begins a comment at the beginning of a line or after
 * a blank.  In config a profile's section is [profile NAME] or [default], in
 * credentials [NAME].
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/s3/credentials.h"
#include "backends/s3/profile.h"

#define FILE_BYTES_MAX	(1u << 20)
#define BLANKS		" \t\r\v\f"

struct setting {
	enum profile_file file;
	const char *section;	/* "profile NAME", "services NAME", ... */
	const char *parent;	/* of a nested one, else NULL */
	const char *name;	/* NULL: the section itself */
	const char *value;
};

struct one_file {
	char *path;		/* to open */
	char *shown;		/* to say */
	char *text;		/* the settings' strings lie in it */
	size_t count;
	bool found, open_to_others;
};

struct profiles {
	struct one_file files[NR_PROFILE_FILES];
	char **sections;	/* names put together */
	unsigned int nr_sections;
	struct setting *settings;	/* a later one of the same name wins */
	unsigned int nr_settings;
};

const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

/* ---- files ---------------------------------------------------------------- */

static const char *home_folder(void)
{
	const char *home = environment("HOME");
	const struct passwd *user = home ? NULL : getpwuid(getuid());

	return home ? home : user ? user->pw_dir : "/";
}

static int find_path(struct one_file *file, const char *variable, const char *name)
{
	const char *given = environment(variable);
	int length;

	if (given && strncmp(given, "~/", 2) != 0)
		length = asprintf(&file->path, "%s", given);
	else
		length = asprintf(&file->path, "%s/%s", home_folder(),
				  given ? given + 2 : name);
	if (length < 0)
		file->path = NULL;
	if (asprintf(&file->shown, "%s%s", given ? "" : "~/", given ? given : name) < 0)
		file->shown = NULL;
	return file->path && file->shown ? 0 : -ENOMEM;
}

static int read_whole(int fd, struct one_file *file)
{
	ssize_t got = 1;

	file->text = malloc(FILE_BYTES_MAX + 1);
	if (!file->text)
		return -ENOMEM;
	while (got > 0 && file->count <= FILE_BYTES_MAX) {
		got = read(fd, file->text + file->count,
			   FILE_BYTES_MAX + 1 - file->count);
		if (got < 0)
			return -errno;
		file->count += (size_t)got;
	}
	if (file->count > FILE_BYTES_MAX)
		return -EFBIG;
	file->text[file->count] = 0;
	return 0;
}

static int file_read(struct one_file *file, char *why, size_t room)
{
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	int error = 0;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (fd < 0 || fstat(fd, &status) < 0)
		error = -errno;
	else
		error = read_whole(fd, file);
	if (fd >= 0)
		close(fd);
	if (error) {
		snprintf(why, room, "%s: %s", file->shown, strerror(-error));
		return error;
	}
	file->found = true;
	file->open_to_others = status.st_mode & (S_IRGRP | S_IROTH);
	if (memchr(file->text, 0, file->count)) {
		snprintf(why, room, "%s: is no text file", file->shown);
		return -EINVAL;
	}
	return 0;
}

/* ---- lines ---------------------------------------------------------------- */

struct reading {
	struct profiles *profiles;
	enum profile_file file;
	const char *section;	/* NULL: none yet */
	const char *parent;	/* NAME of the last "NAME =", or NULL */
	struct setting *last;	/* its value may go on */
};

static char *trim(char *text)
{
	size_t length;

	text += strspn(text, BLANKS);
	length = strlen(text);
	while (length && strchr(BLANKS, text[length - 1]))
		length--;
	text[length] = 0;
	return text;
}

static void cut_comment(char *line)
{
	for (char *at = line; *at; at++) {
		if ((*at == '#' || *at == ';') &&
		    (at == line || at[-1] == ' ' || at[-1] == '\t')) {
			*at = 0;
			return;
		}
	}
}

static int setting_add(struct reading *reading, const char *parent, const char *name,
		       const char *value)
{
	struct profiles *profiles = reading->profiles;
	struct setting *settings = profiles->settings;

	if ((profiles->nr_settings & (profiles->nr_settings - 1)) == 0) {
		settings = reallocarray(settings, profiles->nr_settings ?
					2 * profiles->nr_settings : 1, sizeof(*settings));
		if (!settings)
			return -ENOMEM;
		profiles->settings = settings;
	}
	reading->last = &settings[profiles->nr_settings++];
	*reading->last = (struct setting){ reading->file, reading->section, parent, name,
					   value };
	return 0;
}

/* "profile NAME" for both files; other kinds ("services NAME") keep their own. */
static int section_name(struct reading *reading, const char *kind, const char *name)
{
	struct profiles *profiles = reading->profiles;
	char **sections = reallocarray(profiles->sections, profiles->nr_sections + 1,
				       sizeof(*sections));
	char *text;

	if (!sections)
		return -ENOMEM;
	profiles->sections = sections;
	if (asprintf(&text, "%s %s", kind, name) < 0)
		return -ENOMEM;
	sections[profiles->nr_sections++] = text;
	reading->section = text;
	return setting_add(reading, NULL, NULL, NULL);
}

static int section_begin(struct reading *reading, char *line, const char **wrong)
{
	char *end = strchr(line, ']'), *name;
	size_t length;

	reading->parent = NULL;
	if (!end || *trim(end + 1)) {
		*wrong = "a section is [NAME]";
		return -EINVAL;
	}
	*end = 0;
	line = trim(line + 1);
	if (reading->file == PROFILE_CREDENTIALS)
		return section_name(reading, "profile", line);
	length = strcspn(line, BLANKS);
	if (!line[length])	/* [default]; or [NAME], which is nothing in config */
		return section_name(reading, strcmp(line, "default") ? "other" :
				    "profile", line);
	line[length] = 0;
	name = trim(line + length + 1);
	length = strlen(name);
	if (length > 1 && (name[0] == '"' || name[0] == '\'') &&
	    name[length - 1] == name[0]) {
		name[length - 1] = 0;
		name++;
	}
	return section_name(reading, line, name);
}

/* The strings all lie in the file's text, one behind the other: a value goes on
 * by moving the line up to it. */
static void value_go_on(struct setting *last, const char *more)
{
	char *end = (char *)(uintptr_t)last->value + strlen(last->value);

	*end++ = '\n';
	memmove(end, more, strlen(more) + 1);
}

static int line_read(struct reading *reading, char *line, const char **wrong)
{
	bool indented = *line == ' ' || *line == '\t';
	char *equals, *name, *value;
	int error;

	cut_comment(line);
	line = trim(line);
	if (!*line)
		return 0;
	if (*line == '[' && !indented)
		return section_begin(reading, line, wrong);
	if (!reading->section) {
		*wrong = "it stands before the first [section]";
		return -EINVAL;
	}
	if (indented && !reading->parent && reading->last->name) {
		value_go_on(reading->last, line);
		return 0;
	}
	equals = strchr(line, '=');
	if (!equals || equals == line) {
		*wrong = "it is not NAME = VALUE";
		return -EINVAL;
	}
	*equals = 0;
	name = trim(line);
	value = trim(equals + 1);
	for (char *c = name; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	error = setting_add(reading, indented ? reading->parent : NULL, name, value);
	if (!indented)
		reading->parent = *value ? NULL : name;
	return error;
}

static int file_parse(struct profiles *profiles, enum profile_file which, char *why,
		      size_t room)
{
	struct one_file *file = &profiles->files[which];
	struct reading reading = { .profiles = profiles, .file = which };
	char *rest = file->text, *line;
	const char *wrong = NULL;
	unsigned int number = 0;
	int error = 0;

	while (!error && (line = strsep(&rest, "\n"))) {
		number++;
		error = line_read(&reading, line, &wrong);
	}
	/* Not the line itself: it may hold a secret. */
	if (wrong)
		snprintf(why, room, "%s: line %u is wrong: %s", file->shown, number,
			 wrong);
	return error;
}

int profiles_read(struct profiles **out, char *why, size_t room)
{
	static const char *const variables[] = { "AWS_SHARED_CREDENTIALS_FILE",
						 "AWS_CONFIG_FILE" };
	static const char *const names[] = { ".aws/credentials", ".aws/config" };
	struct profiles *profiles = calloc(1, sizeof(*profiles));
	int error = profiles ? 0 : -ENOMEM;

	snprintf(why, room, "no memory");
	for (int i = 0; i < NR_PROFILE_FILES && !error; i++) {
		error = find_path(&profiles->files[i], variables[i], names[i]);
		if (!error)
			error = file_read(&profiles->files[i], why, room);
		if (!error)
			error = file_parse(profiles, (enum profile_file)i, why, room);
	}
	if (error) {
		profiles_free(profiles);
		profiles = NULL;
	}
	*out = profiles;
	return error;
}

void profiles_free(struct profiles *profiles)
{
	struct one_file *file;

	if (!profiles)
		return;
	for (int i = 0; i < NR_PROFILE_FILES; i++) {
		file = &profiles->files[i];
		if (file->text)
			explicit_bzero(file->text, file->count);
		free(file->text);
		free(file->path);
		free(file->shown);
	}
	for (unsigned int i = 0; i < profiles->nr_sections; i++)
		free(profiles->sections[i]);
	free(profiles->sections);
	free(profiles->settings);
	free(profiles);
}

/* ---- what they say -------------------------------------------------------- */

const char *profiles_path(const struct profiles *profiles, enum profile_file file)
{
	return profiles->files[file].shown;
}

bool profiles_has_file(const struct profiles *profiles, enum profile_file file)
{
	return profiles->files[file].found;
}

bool profiles_is_open_to_others(const struct profiles *profiles, enum profile_file file)
{
	return profiles->files[file].open_to_others;
}

const char *profile_chosen(const char *given)
{
	if (!given)
		given = environment("AWS_PROFILE");
	return given ? given : "default";
}

static bool section_is(const struct setting *setting, const char *kind,
		       const char *name)
{
	size_t length = strlen(kind);

	return strncmp(setting->section, kind, length) == 0 &&
	       setting->section[length] == ' ' &&
	       strcmp(setting->section + length + 1, name) == 0;
}

static bool name_is(const struct setting *setting, const char *name)
{
	size_t length = setting->parent ? strlen(setting->parent) : 0;

	if (!setting->name)
		return false;
	if (!setting->parent)
		return strcmp(setting->name, name) == 0;
	return strncmp(name, setting->parent, length) == 0 && name[length] == '.' &&
	       strcmp(name + length + 1, setting->name) == 0;
}

static const char *section_value(const struct profiles *profiles,
				 enum profile_file file, const char *kind,
				 const char *section, const char *name)
{
	const struct setting *setting;

	for (unsigned int i = profiles->nr_settings; i-- > 0; ) {
		setting = &profiles->settings[i];
		if (setting->file == file && section_is(setting, kind, section) &&
		    name_is(setting, name))
			return setting->value[0] ? setting->value : NULL;
	}
	return NULL;
}

bool profile_exists(const struct profiles *profiles, const char *profile)
{
	for (unsigned int i = 0; i < profiles->nr_settings; i++)
		if (section_is(&profiles->settings[i], "profile", profile))
			return true;
	return false;
}

const char *profile_value_in(const struct profiles *profiles, enum profile_file file,
			     const char *profile, const char *name)
{
	return section_value(profiles, file, "profile", profile, name);
}

const char *profile_value(const struct profiles *profiles, const char *profile,
			  const char *name)
{
	const char *value = NULL;

	for (int i = 0; i < NR_PROFILE_FILES && !value; i++)
		value = profile_value_in(profiles, (enum profile_file)i, profile, name);
	return value;
}

const char *profile_endpoint(const struct profiles *profiles, const char *profile,
			     const char *service)
{
	const char *ignore = environment("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
	const char *services = profile_value(profiles, profile, "services");
	const char *endpoint = NULL;
	char name[64];

	if (!ignore)
		ignore = profile_value(profiles, profile,
				       "ignore_configured_endpoint_urls");
	if (ignore && strcasecmp(ignore, "true") == 0)
		return NULL;
	snprintf(name, sizeof(name), "%s.endpoint_url", service);
	if (services)
		endpoint = section_value(profiles, PROFILE_CONFIG, "services", services,
					 name);
	return endpoint ? endpoint : profile_value(profiles, profile, "endpoint_url");
}

char *s3_profile_setting(const char *profile, const char *name)
{
	struct profiles *profiles;
	const char *value;
	char why[256], *copy = NULL;

	profile = profile_chosen(profile);
	/* s3_credentials_open() says what is wrong with the files. */
	if (profiles_read(&profiles, why, sizeof(why)))
		return NULL;
	if (strcmp(name, "endpoint_url") == 0)
		value = profile_endpoint(profiles, profile, "s3");
	else
		value = profile_value(profiles, profile, name);
	if (value)
		copy = strdup(value);
	profiles_free(profiles);
	return copy;
}
