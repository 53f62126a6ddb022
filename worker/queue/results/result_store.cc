#include "worker/queue/results/result_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "worker/queue/results/sha256.h"

namespace penstock::queue {
namespace {

constexpr size_t kReadBytes = 256U << 10;

Status check(const std::string& name) {
  const bool good = !name.empty() && name.size() <= ResultStore::kMostNameBytes &&
                    name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
                    });
  return good ? Status(Ok{}) : Error{"a result cannot be named \"" + name + '"'};
}

Status write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::write(file, bytes.data(), bytes.size());
    if (size < 0 && errno != EINTR) {
      return file_error("a result cannot be written", errno);
    }
    bytes.remove_prefix(size > 0 ? static_cast<size_t>(size) : 0);
  }
  return Ok{};
}

}  // namespace

Error file_error(const std::string& what, int error) {
  const ErrorKind kind = error == ENOSPC || error == EDQUOT  ? ErrorKind::kNoSpace
                         : error == ENOENT                   ? ErrorKind::kGone
                         : error == EACCES || error == EPERM ? ErrorKind::kRefused
                         : error == EMFILE || error == ENOMEM || error == ENFILE ? ErrorKind::kBusy
                                                                                 : ErrorKind::kIo;
  return {what + ": " + std::strerror(error), kind};
}

Status read_file(int file, uint64_t first, uint64_t bytes, const std::string& what,
                 const ResultStore::Take& take) {
  std::vector<char> buffer(std::min<uint64_t>(bytes, kReadBytes));
  for (uint64_t at = 0; at < bytes;) {
    const ssize_t size = ::pread(file, buffer.data(), std::min<uint64_t>(bytes - at, kReadBytes),
                                 static_cast<off_t>(first + at));
    if (size < 0 && errno == EINTR) {
      continue;
    }
    if (size <= 0) {
      return size < 0 ? file_error(what, errno)
                      : Error{what + ": it ends before its end", ErrorKind::kGone};
    }
    if (!take({buffer.data(), static_cast<size_t>(size)})) {
      return Ok{};
    }
    at += static_cast<uint64_t>(size);
  }
  return Ok{};
}

Result<StoredResult> ResultStore::put(const std::string& name, int file) {
  if (const Status good = check(name); !good) {
    return good.error();
  }
  struct stat is {};
  if (::fstat(file, &is) != 0) {
    return file_error("the result " + name, errno);
  }
  StoredResult result{.name = name, .bytes = static_cast<uint64_t>(is.st_size), .sha256 = {}};
  Sha256 digest;
  const auto add = [&](std::string_view bytes) {
    digest.add(bytes);
    return true;
  };
  if (const Status read = read_file(file, 0, result.bytes, "the result " + name, add); !read) {
    return read.error();
  }
  result.sha256 = digest.hex();
  const Status done = put_file(result, file);
  return done ? Result<StoredResult>(std::move(result)) : done.error();
}

Status ResultStore::get(const StoredResult& result, int into) {
  Sha256 digest;
  Status written = Ok{};
  const Status got = read(result.name, 0, result.bytes, [&](std::string_view bytes) {
    digest.add(bytes);
    written = write_all(into, bytes);
    return static_cast<bool>(written);
  });
  if (!got || !written) {
    return got ? written : got;
  }
  return digest.hex() == result.sha256
             ? Status(Ok{})
             : Error{"the result " + result.name +
                         " is not what was put there: its SHA-256 is another",
                     ErrorKind::kCorrupt};
}

Status ResultStore::read(const std::string& name, uint64_t first, uint64_t bytes,
                         const Take& take) {
  const Status good = check(name);
  return !good || bytes == 0 ? good : read_part(name, first, bytes, take);
}

Status ResultStore::remove(const std::string& name) {
  const Status good = check(name);
  return good ? remove_file(name) : good;
}

}  // namespace penstock::queue
