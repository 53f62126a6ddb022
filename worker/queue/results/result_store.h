// ResultStore: files that all hosts of a shared queue can have: the results that are too large for
// Redis. Each is put once, under a name of its own, and never changes; what is known of it, its
// size and digest, is kept with the job's end, so that nobody takes another's bytes, or half of
// them, for the result.
//
// All of it waits for the disk or the network: it is called by threads of ResultThreads. A store is
// one thread's.
//
// Errors, by kind: kGone it is not there; kCorrupt it is there, and is not what was put; kBusy the
// store cannot be reached, or says that it cannot now; kNoSpace; kRefused it is not allowed, or
// wrong. A put that has failed may have stored the file all the same: it may be put again, or
// removed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::queue {

struct StoredResult {
  std::string name;
  uint64_t bytes = 0;
  std::string sha256;  // 64 lower-case hexadecimal digits
};

class ResultStore {
 public:
  static constexpr size_t kMostNameBytes = 200;
  // False: no more is wanted.
  using Take = std::function<bool(std::string_view bytes)>;

  ResultStore() = default;
  virtual ~ResultStore() = default;
  ResultStore(const ResultStore&) = delete;
  ResultStore& operator=(const ResultStore&) = delete;

  // All of an open file. Once it is answered, it outlives this host, as far as the store does.
  // Names are letters, digits, "_", "-" and ".", and do not begin with one.
  Result<StoredResult> put(const std::string& name, int file);
  // All of it, into an open, empty file, whose content is the result if it is Ok alone.
  Status get(const StoredResult& result, int into);
  // A part, as it comes; the digest is not looked at. kGone: the result is not there, or ends
  // before the part does. What Take does not want is no error.
  Status read(const std::string& name, uint64_t first, uint64_t bytes, const Take& take);
  // What is not there is removed already.
  Status remove(const std::string& name);

 private:
  virtual Status put_file(const StoredResult& result, int file) = 0;
  virtual Status read_part(const std::string& name, uint64_t first, uint64_t bytes,
                           const Take& take) = 0;
  virtual Status remove_file(const std::string& name) = 0;
};

// A part of an open file, as it comes. An error names `what` it is of.
Status read_file(int file, uint64_t first, uint64_t bytes, const std::string& what,
                 const ResultStore::Take& take);
// What went wrong with a file, as errno says, and what is to be done.
Error file_error(const std::string& what, int error);

}  // namespace penstock::queue
