// FolderStore: a folder that all hosts have, by NFS or the like.
//
// A file is written under a name of its own, flushed, and then renamed, so that whoever sees it
// sees all of it. What was begun and never renamed, as its host was killed, begins with a dot: once
// a day each store removes what is older than a day.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "shared/base/fd.h"
#include "worker/queue/results/result_store.h"

namespace penstock::queue {

class FolderStore final : public ResultStore {
 public:
  // The folder is there.
  static Result<std::unique_ptr<ResultStore>> open(const std::string& folder);

 private:
  FolderStore(std::string folder, Fd directory)
      : folder_(std::move(folder)), directory_(std::move(directory)) {}

  Status put_file(const StoredResult& result, int file) override;
  Status read_part(const std::string& name, uint64_t first, uint64_t bytes,
                   const Take& take) override;
  Status remove_file(const std::string& name) override;

  Status write(const std::string& name, const StoredResult& result, int file) const;
  void remove_unfinished();
  std::string what(const std::string& name) const { return folder_ + "/" + name; }

  const std::string folder_;
  const Fd directory_;
  int64_t swept_ns_ = INT64_MIN;  // steady; when it last looked for what is unfinished
};

}  // namespace penstock::queue
