// The file of issued keys (shared/keys/keys_file.h), changed by one penstockctl at a time. Whoever
// reads it sees it as it was or as it is, never half of it, and after a crash as well.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "shared/keys/keys_file.h"

namespace penstock::ctl {

class KeysStore {
 public:
  enum class Absent : uint8_t { kHasNoKeys, kIsError };  // a file that is not there yet

  // Locks it by a file beside it, `path`.lock, waiting ten seconds at most for another who does,
  // and reads it. A link stays one: what it leads to is changed. The Error names the file.
  static Result<KeysStore> open(const std::string& path, Absent absent);
  // The same to look at only, without waiting. REQUIRES: save() is not called.
  static Result<KeysStore> read(const std::string& path, Absent absent = Absent::kIsError);

  std::vector<keys::Key>& all() { return keys_; }

  // Replaces the file: on disk when this returns. It keeps its mode, owner and group; a new one is
  // for its owner, and for Nginx's group to read if this host has one.
  Status save();

 private:
  explicit KeysStore(std::string path) : path_(std::move(path)) {}

  std::string path_;
  Fd lock_;
  std::vector<keys::Key> keys_;
};

}  // namespace penstock::ctl
