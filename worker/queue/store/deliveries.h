// Deliveries: the tables of webhooks that are still to be delivered, and of the URLs that want no
// more. Every function works within whatever transaction is open; false says that the database
// failed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/store/queries.h"
#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

class Deliveries {
 public:
  // The database outlives this.
  explicit Deliveries(Database& database);

  // The job has ended. If it wants a webhook, that is due now.
  bool insert(int64_t seq, int64_t due_ms);
  bool erase(int64_t seq);
  // `tries` were made; due again at `due_ms`, or over (0).
  bool set(const JobId& id, uint32_t tries, int64_t due_ms);
  bool due(const DueQuery& query, DuePage& page);
  // The last kMostGoneUrls are kept.
  bool disable_url(std::string_view url);
  bool gone_urls(std::vector<std::string>& urls);  // the oldest first

 private:
  Database& database_;
  Statement insert_, erase_, set_, keep_no_longer_, due_, due_of_owner_, next_due_, count_,
      insert_gone_url_, forget_gone_urls_;
};

}  // namespace penstock::queue
