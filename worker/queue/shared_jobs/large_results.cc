#include "worker/queue/shared_jobs/large_results.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <utility>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/secret_file.h"
#include "worker/queue/results/folder_store.h"
#include "worker/queue/results/s3_store.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr size_t kMostKeyBytes = 512;

Result<S3Store::Settings> settings_of(const ResultsConfig& config) {
  auto secret = read_secret_file(config.key_file, kMostKeyBytes);
  if (!secret) {
    return secret.error();
  }
  std::string& text = secret->text;
  text.erase(text.find_last_not_of("\r\n") + 1);
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    return Error{config.key_file + " must hold ID:SECRET in one line"};
  }
  S3Store::Settings settings;
  settings.url = config.s3;
  settings.bucket = config.bucket;
  settings.prefix = config.prefix;
  settings.key = {text.substr(0, colon), text.substr(colon + 1), config.region};
  return settings;
}

StoredResult stored_of(const JobRecord& record) {
  return {record.stored_name, record.result_bytes, record.stored_sha256};
}

// All of it in memory, as a file.
Result<Fd> file_of(const std::string& bytes) {
  Fd file(::memfd_create("penstock-result", MFD_CLOEXEC));
  size_t done = 0;
  while (file.valid() && done < bytes.size()) {
    const ssize_t size = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (size < 0 && errno != EINTR) {
      return file_error("a result in memory", errno);
    }
    done += size > 0 ? static_cast<size_t>(size) : 0;
  }
  return file.valid() ? Result<Fd>(std::move(file)) : file_error("a result in memory", errno);
}

// Whoever reads it sees all of it: it is renamed once it is whole.
Status fetch(ResultStore& store, const StoredResult& result, const std::string& path,
             const std::string& group) {
  struct stat is {};
  if (::stat(path.c_str(), &is) == 0 && static_cast<uint64_t>(is.st_size) == result.bytes) {
    ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
    return Ok{};
  }
  std::string own = path + ".XXXXXX";
  const Fd file(::mkostemp(own.data(), O_CLOEXEC));
  if (!file.valid()) {
    return file_error(own, errno);
  }
  ::fchmod(file.get(), 0640);
  if (const struct group* const found = group.empty() ? nullptr : ::getgrnam(group.c_str())) {
    [[maybe_unused]] const int changed =
        ::fchown(file.get(), static_cast<uid_t>(-1), found->gr_gid);
  }
  Status got = store.get(result, file.get());
  if (got && ::rename(own.c_str(), path.c_str()) != 0) {
    got = file_error(path, errno);
  }
  if (!got) {
    ::unlink(own.c_str());
  }
  return got;
}

void remove_old(const std::string& folder, int64_t kept_ns) {
  std::error_code error;
  const auto since =
      std::filesystem::file_time_type::clock::now() - std::chrono::nanoseconds(kept_ns);
  for (const auto& each : std::filesystem::directory_iterator(folder, error)) {
    if (const auto time = each.last_write_time(error); !error && time < since) {
      std::filesystem::remove(each.path(), error);
    }
  }
}

}  // namespace

Result<std::unique_ptr<LargeResults>> LargeResults::open(const ResultsConfig& config,
                                                         const std::string& state,
                                                         const std::string& group,
                                                         EventLoop& events,
                                                         std::function<void()> on_event) {
  std::vector<std::unique_ptr<ResultStore>> stores;
  std::unique_ptr<S3Store> addresses;
  for (size_t i = 0; i < kThreads; ++i) {
    if (!config.folder.empty()) {
      auto store = FolderStore::open(config.folder);
      if (!store) {
        return store.error();
      }
      stores.push_back(*std::move(store));
      continue;
    }
    auto settings = settings_of(config);
    if (!settings) {
      return settings.error();
    }
    if (config.redirect && addresses == nullptr) {
      addresses = std::make_unique<S3Store>(*settings);
    }
    stores.push_back(std::make_unique<S3Store>(*std::move(settings)));
  }
  const std::string folder = state + "/fetched";
  if (::mkdir(folder.c_str(), 0750) != 0 && errno != EEXIST) {
    return file_error(folder, errno);
  }
  if (const struct group* const found = group.empty() ? nullptr : ::getgrnam(group.c_str())) {
    [[maybe_unused]] const int changed =
        ::chown(folder.c_str(), static_cast<uid_t>(-1), found->gr_gid);
  }
  std::unique_ptr<LargeResults> results(new LargeResults(config, std::filesystem::absolute(folder),
                                                         group, events, std::move(on_event),
                                                         std::move(stores), std::move(addresses)));
  if (Status added = events.add(results->threads_.event_fd(), EPOLLIN, results.get()); !added) {
    return added.error();
  }
  return results;
}

LargeResults::LargeResults(ResultsConfig config, std::string folder, std::string group,
                           EventLoop& events, std::function<void()> on_event,
                           std::vector<std::unique_ptr<ResultStore>> stores,
                           std::unique_ptr<S3Store> addresses)
    : config_(std::move(config)),
      folder_(std::move(folder)),
      group_(std::move(group)),
      events_(events),
      on_event_(std::move(on_event)),
      addresses_(std::move(addresses)),
      threads_(std::move(stores)) {}

LargeResults::~LargeResults() {
  *alive_ = false;
  events_.remove(threads_.event_fd(), this);
}

void LargeResults::on_events(uint32_t) {
  on_event_();
  threads_.run_done();
}

// ---- in

void LargeResults::put(SharedOrder& order, const std::string& id, std::string bytes,
                       int64_t keep_ms, Stored stored) {
  const std::string name = id + "." + SharedOrder::new_host();
  const auto noted = [this, name, bytes = std::make_shared<std::string>(std::move(bytes)),
                      stored = std::move(stored),
                      alive = alive_](const SharedOrder::Answer<bool>& answer) {
    if (!*alive) {
      return;
    }
    if (!answer) {
      return stored(Error{"Redis does not answer", ErrorKind::kBusy});
    }
    const bool asked = threads_.ask([name, bytes, stored](ResultStore& store) {
      const Result<Fd> file = file_of(*bytes);
      auto result = std::make_shared<Result<StoredResult>>(
          file ? store.put(name, file->get()) : Result<StoredResult>(file.error()));
      return [result, stored] { stored(std::move(*result)); };
    });
    if (!asked) {
      stored(Error{"too many results wait to be stored", ErrorKind::kBusy});
    }
  };
  if (!note(order, name, keep_ms, noted)) {
    SharedOrder::Answer<bool> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    noted(none);
  }
}

bool LargeResults::note(SharedOrder& order, const std::string& name, int64_t keep_ms,
                        SharedOrder::Then<bool> then) {
  return order.note_result(name, keep_ms + kSpareMs, std::move(then));
}

void LargeResults::remove(SharedOrder& order, const std::string& name) {
  remove(order, std::vector<std::string>{name});
}

void LargeResults::remove(SharedOrder& order, const std::vector<std::string>& names) {
  threads_.ask([&order, names, folder = folder_, alive = alive_](ResultStore& store) {
    std::vector<std::string> gone;
    std::string why;
    for (const std::string& name : names) {
      ::unlink(fmt::format("{}/{}", folder, name).c_str());
      const Status removed = store.remove(name);
      removed ? gone.push_back(name) : static_cast<void>(why = removed.error().message);
    }
    return [&order, gone, why, alive] {
      if (!why.empty()) {
        log(Level::kWarn, "a result cannot be removed, and is tried again: " + why);
      }
      for (const std::string& name : *alive ? gone : std::vector<std::string>()) {
        order.note_result(name, 0, [](const SharedOrder::Answer<bool>&) {});
      }
    };
  });
}

// ---- out

void LargeResults::bring(JobRecord record, const std::function<void(Result<JobRecord>)>& brought) {
  if (record.stored_name.empty()) {
    return brought(std::move(record));
  }
  const std::string path = folder_ + "/" + record.stored_name;
  record.result_in_file = true;
  record.result_path = path;
  const auto shared = std::make_shared<JobRecord>(std::move(record));
  const bool asked = threads_.ask([shared, path, group = group_, brought](ResultStore& store) {
    const Status got = fetch(store, stored_of(*shared), path, group);
    return [shared, got, brought] {
      brought(got ? Result<JobRecord>(std::move(*shared)) : got.error());
    };
  });
  if (!asked) {
    brought(Error{"too many results are asked for", ErrorKind::kBusy});
  }
}

void LargeResults::read(const JobRecord& record, uint64_t first,
                        const std::function<void(Result<std::string>)>& done) {
  first = std::min(first, record.result_bytes);
  const bool asked = threads_.ask([result = stored_of(record), first, done](ResultStore& store) {
    auto bytes = std::make_shared<std::string>();
    const uint64_t most = result.bytes - first;
    const Status got = store.read(result.name, first, most, [&](std::string_view some) {
      bytes->append(some);
      return true;
    });
    return [bytes, got, done] { done(got ? Result<std::string>(std::move(*bytes)) : got.error()); };
  });
  if (!asked) {
    done(Error{"too many results are asked for", ErrorKind::kBusy});
  }
}

std::string LargeResults::address_of(const JobRecord& record) const {
  return addresses_ == nullptr || record.stored_name.empty()
             ? std::string()
             : addresses_->url_of(record.stored_name, kRedirectSeconds);
}

// ---- what is over

void LargeResults::clean(SharedOrder& order) {
  order.stale_results(
      kMostRemoved,
      [this, &order, alive = alive_](const SharedOrder::Answer<std::vector<std::string>>& names) {
        if (*alive && names && !names.value.empty()) {
          remove(order, names.value);
        }
      });
}

void LargeResults::advance_to(int64_t now_ns, const std::function<void()>& clean_all) {
  if (now_ns < next_ns_) {
    return;
  }
  next_ns_ = now_ns + kEveryNs;
  clean_all();
  threads_.ask([folder = folder_](ResultStore&) {
    remove_old(folder, kFetchedNs);
    return [] {};
  });
}

}  // namespace penstock::queue
