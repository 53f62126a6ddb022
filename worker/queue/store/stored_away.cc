#include "worker/queue/store/stored_away.h"

namespace penstock::queue {

StoredAway::StoredAway(Database& database)
    : insert_(database, "INSERT OR REPLACE INTO away(id, job) VALUES(?,?)"),
      erase_(database, "DELETE FROM away WHERE id=?"),
      find_(database, "SELECT job FROM away WHERE id=?"),
      all_(database, "SELECT id, job FROM away ORDER BY id") {}

bool StoredAway::insert(const std::string& id, const std::string& job) {
  return insert_.with(std::string_view(id), std::string_view(job)).run();
}

bool StoredAway::erase(const std::string& id) { return erase_.with(std::string_view(id)).run(); }

bool StoredAway::find(const std::string& id, std::optional<std::string>& job) {
  find_.with(std::string_view(id));
  if (find_.step()) {
    job = find_.bytes(0);
  }
  const bool good = !find_.failed();
  find_.reset();
  return good;
}

bool StoredAway::each(const std::function<void(std::string_view, std::string_view)>& each) {
  all_.with();
  while (all_.step()) {
    each(all_.bytes(0), all_.bytes(1));
  }
  const bool good = !all_.failed();
  all_.reset();
  return good;
}

}  // namespace penstock::queue
