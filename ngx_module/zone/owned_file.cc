#include "ngx_module/zone/owned_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace penstock {

std::string failed(const char* what, const char* path) {
  const char* why = std::strerror(errno);
  return std::string(what) + " \"" + path + "\" failed: " + why;
}

bool is_in_the_way(int error) noexcept {
  return error == ELOOP || error == EACCES || error == EISDIR || error == ENXIO;
}

bool is_ours(const struct stat& file, uid_t other_owner) noexcept {
  return S_ISREG(file.st_mode) && file.st_nlink == 1 &&
         (file.st_uid == geteuid() || (geteuid() == 0 && file.st_uid == other_owner));
}

bool is_ours(int fd) noexcept {
  struct stat file;
  return fstat(fd, &file) == 0 && is_ours(file, geteuid());
}

bool has_name(const struct stat& file, const char* path) noexcept {
  struct stat named;
  return lstat(path, &named) == 0 && named.st_dev == file.st_dev && named.st_ino == file.st_ino;
}

bool has_name(int fd, const char* path) noexcept {
  struct stat file;
  return fstat(fd, &file) == 0 && has_name(file, path);
}

}  // namespace penstock
