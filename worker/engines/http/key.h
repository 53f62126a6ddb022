// The operator's key for a server: a file that only the worker reads, so that the key stands on no
// command line, in no environment and in no log.
//
// The file has one line. It is the key itself, sent as "Authorization: Bearer KEY", or a header of
// its own: "x-api-key: KEY". A file that has changed is read again, so that a key can be changed
// while jobs run.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "shared/base/clock.h"
#include "shared/base/result.h"
#include "worker/pool/log.h"

namespace penstock::http_engine {

class Key {
 public:
  static constexpr size_t kMaxBytes = 4096;
  static constexpr int64_t kLookNs = kNsPerSec;  // between two looks at the file

  // An Error says what is wrong with the file. An empty path: there is no key.
  static Result<Key> load(const std::string& path, const Log& log);

  // "Name: value", or empty. The last key stays in force while the file cannot be read.
  const std::string& header(int64_t now_ns, const Log& log);

 private:
  Status read(const Log& log);

  std::string path_;
  std::string header_;
  struct stat seen_ {};
  int64_t looked_ns_ = 0;
};

}  // namespace penstock::http_engine
