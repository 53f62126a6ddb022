// Files that only we may have made. In /dev/shm and beside a snapshot anybody may put a link or a
// pipe in the place of ours.
#pragma once

#include <sys/stat.h>

#include <string>

namespace penstock {

// `open() "/dev/shm/x" failed: No such file or directory`, by errno.
std::string failed(const char* what, const char* path);

// What open() says of a trap: a link, a folder, a pipe, or what another user keeps to himself.
bool is_in_the_way(int error) noexcept;

// Whether it is a plain file of this process's user. Root may also use what `other_owner` has.
bool is_ours(const struct stat& file, uid_t other_owner) noexcept;
bool is_ours(int fd) noexcept;

// Whether the path leads to this very file.
bool has_name(const struct stat& file, const char* path) noexcept;
bool has_name(int fd, const char* path) noexcept;

}  // namespace penstock
