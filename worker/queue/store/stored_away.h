// StoredAway: the table of what was promised of jobs that Redis has, so that they can be brought
// there again. Every function works within whatever transaction is open; false says that the
// database failed.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

class StoredAway {
 public:
  explicit StoredAway(Database& database);

  // In place of what there was under that id.
  bool insert(const std::string& id, const std::string& job);
  bool erase(const std::string& id);
  bool find(const std::string& id, std::optional<std::string>& job);
  bool each(const std::function<void(std::string_view id, std::string_view job)>& each);

 private:
  Statement insert_, erase_, find_, all_;
};

}  // namespace penstock::queue
