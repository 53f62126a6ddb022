#include "worker/queue/care/backup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <vector>

#include "shared/base/call_failed.h"
#include "shared/base/fd.h"
#include "shared/base/job_id.h"
#include "shared/base/utc.h"
#include "shared/base/version.h"
#include "worker/queue/store/schema.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

namespace fs = std::filesystem;

constexpr char kSums[] = "/SHA256SUMS";
constexpr char kAbout[] = "backup.json";
constexpr size_t kSumDigits = 64;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void add(const char* bytes, size_t size) { EVP_DigestUpdate(context_.get(), bytes, size); }
  std::string digits() {
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), sum, &size);
    std::string digits;
    for (unsigned i = 0; i < size; ++i) {
      fmt::format_to(std::back_inserter(digits), "{:02x}", sum[i]);
    }
    return digits;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// Gives all of the file, piece by piece; the digits of its sum.
Result<std::string> read_all(const Fd& in, const std::string& path,
                             const std::function<bool(const char*, size_t)>& take) {
  Sha256 sum;
  std::vector<char> piece(256U << 10);
  for (;;) {
    const ssize_t size = ::read(in.get(), piece.data(), piece.size());
    if (size < 0 && errno == EINTR) {
      continue;
    }
    if (size < 0) {
      return call_failed(path, "reading it");
    }
    if (size == 0) {
      return sum.digits();
    }
    sum.add(piece.data(), static_cast<size_t>(size));
    if (!take(piece.data(), static_cast<size_t>(size))) {
      return Error{"not written"};
    }
  }
}

bool write_all(const Fd& out, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(out.get(), bytes, size);
    if (n < 0 && errno != EINTR) {
      return false;
    }
    bytes += std::max<ssize_t>(n, 0);
    size -= static_cast<size_t>(std::max<ssize_t>(n, 0));
  }
  return true;
}

Status flush_folder(const std::string& path) {
  const Fd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return folder.valid() && ::fsync(folder.get()) == 0 ? Status(Ok{})
                                                      : call_failed(path, "flushing it");
}

Status write_text(const std::string& path, const std::string& text) {
  const Fd out(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  return out.valid() && write_all(out, text.data(), text.size()) && ::fsync(out.get()) == 0
             ? Status(Ok{})
             : call_failed(path, "writing it");
}

// Only these names are read from a file of sums, whatever it says.
bool good_name(std::string_view name) {
  constexpr std::string_view kResults = "results/";
  return name == "jobs.db" || name == "secret" || name == kAbout ||
         (name.starts_with(kResults) && parse_job_id(name.substr(kResults.size())));
}

// Gives each file's sum and name. An Error: a line is none.
Status for_each_sum(const std::string& backup,
                    const std::function<Status(const std::string&, const std::string&)>& each) {
  std::ifstream sums(backup + kSums);
  if (!sums) {
    return Error{backup + " is no backup: it has no SHA256SUMS, which is written last"};
  }
  bool has_jobs = false;
  std::string line;
  while (std::getline(sums, line)) {
    const std::string name = line.size() > kSumDigits + 2 ? line.substr(kSumDigits + 2) : "";
    if (!good_name(name)) {
      return Error{backup + kSums + " has a line that is no sum of a file of a backup"};
    }
    has_jobs = has_jobs || name == "jobs.db";
    if (Status done = each(line.substr(0, kSumDigits), name); !done) {
      return done;
    }
  }
  return has_jobs ? Status(Ok{}) : Error{backup + kSums + " is cut off: it has no jobs.db"};
}

std::string about_json() {
  return JsonObject()
             .text("penstock", version())
             .number("schema", schema_version())
             .text("made", utc_text(::time(nullptr)))
             .done() +
         "\n";
}

Error differs(const std::string& path) {
  return Error{path + " is not as it was written: its SHA-256 is another", ErrorKind::kCorrupt};
}

bool is_empty_or_gone(const std::string& folder) {
  std::error_code none;
  return !fs::exists(folder, none) || fs::is_empty(folder, none);
}

int64_t size_of(const std::string& path) {
  std::error_code none;
  const auto size = fs::file_size(path, none);
  return none ? 0 : static_cast<int64_t>(size);
}

// As that one's, where it may be given.
void be_like(const std::string& path, const std::string& like) {
  struct stat status {};
  if (::stat(like.c_str(), &status) == 0) {
    belong_as(path, like);
    ::chmod(path.c_str(), status.st_mode & 07777);
  }
}

Status make_folder(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
    return call_failed(path, "mkdir");
  }
  return Ok{};
}

}  // namespace

bool is_backup(const std::string& folder) {
  std::error_code none;
  return fs::exists(folder + kSums, none);
}

Result<std::string> copy_file(const std::string& from, const std::string& to) {
  const Fd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat status {};
  if (!in.valid() || ::fstat(in.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return call_failed(from, "opening it");
  }
  const Fd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!out.valid()) {
    return call_failed(to, "making it");
  }
  auto sum = read_all(in, from,
                      [&](const char* bytes, size_t size) { return write_all(out, bytes, size); });
  if (!sum) {
    return sum.error().kind == ErrorKind::kIo ? sum.error() : call_failed(to, "writing it");
  }
  [[maybe_unused]] const int given = ::fchown(out.get(), status.st_uid, status.st_gid);
  if (::fchmod(out.get(), status.st_mode & 0777) != 0 || ::fsync(out.get()) != 0) {
    return call_failed(to, "writing it");
  }
  return sum;
}

Result<Saved> save_backup(const std::string& from, const std::string& to) {
  if (!is_empty_or_gone(to)) {
    return Error{to + " is there and not empty; name another folder"};
  }
  const std::string fresh = to + ".partial";
  std::error_code error;
  fs::remove_all(fresh, error);
  for (const std::string& folder : {fresh, fresh + "/results"}) {
    if (Status made = make_folder(folder, 0700); !made) {
      return made.error();
    }
  }
  std::vector<std::string> names = {"jobs.db", "secret"};
  for (const auto& file : fs::directory_iterator(from + "/results", error)) {
    names.push_back("results/" + file.path().filename().string());
  }
  if (error) {
    return Error{from + "/results cannot be read: " + error.message()};
  }
  Saved saved;
  std::string sums;
  for (const std::string& name : names) {
    const auto sum = copy_file((fs::path(from) / name).string(), (fs::path(fresh) / name).string());
    if (!sum) {
      return sum.error();
    }
    sums.append(*sum).append("  ").append(name).append("\n");
    ++saved.files;
    saved.bytes += size_of((fs::path(fresh) / name).string());
  }
  const std::string about = about_json();
  Sha256 sum;
  sum.add(about.data(), about.size());
  sums.append(sum.digits()).append("  ").append(kAbout).append("\n");
  Status done = write_text(fresh + "/" + kAbout, about);
  done = done ? flush_folder(fresh + "/results") : done;
  done = done ? write_text(fresh + kSums, sums) : done;
  done = done ? flush_folder(fresh) : done;
  if (!done) {
    return done.error();
  }
  fs::rename(fresh, to, error);
  if (error) {
    return Error{fresh + " cannot be renamed to " + to + ": " + error.message()};
  }
  const std::string above = fs::path(to).parent_path().string();
  if (Status flushed = flush_folder(above.empty() ? "." : above); !flushed) {
    return flushed.error();
  }
  return saved;
}

Result<int64_t> check_sums(const std::string& backup) {
  int64_t files = 0;
  Status done =
      for_each_sum(backup, [&](const std::string& sum, const std::string& name) -> Status {
        const std::string path = (fs::path(backup) / name).string();
        const Fd in(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
        if (!in.valid()) {
          return call_failed(path, "opening it");
        }
        const auto found = read_all(in, path, [](const char*, size_t) { return true; });
        if (!found) {
          return found.error();
        }
        ++files;
        return *found == sum ? Status(Ok{}) : differs(path);
      });
  return done ? Result<int64_t>(files) : done.error();
}

Result<Saved> restore_backup(const std::string& backup, const std::string& state) {
  std::error_code none;
  const std::string lock_path = state + "/lock";
  const Error used{"a penstockd uses " + state + ": stop it first", ErrorKind::kBusy};
  // First of all: what is in use is not to be moved away.
  if (const Fd there(::open(lock_path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
      there.valid() && ::flock(there.get(), LOCK_EX | LOCK_NB) != 0) {
    return used;
  }
  // Whatever is left of another state, its log above all, would be taken for this one's.
  for (const auto& left : fs::directory_iterator(state, none)) {
    if (left.path().filename() != "lock") {
      return Error{left.path().string() +
                   " is there: move the whole state away first; nothing is overwritten"};
    }
  }
  if (Status made = make_folder(state, 0750); !made) {
    return made.error();
  }
  const Fd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return lock.valid() ? used : call_failed(lock_path, "opening it");
  }
  be_like(lock_path, backup + "/secret");
  if (Status made = make_folder(state + "/results", 0750); !made) {
    return made.error();
  }
  belong_as(state, backup + "/secret");
  belong_as(state + "/results", backup + "/secret");
  Saved saved;
  const auto copy = [&](const std::string& sum, const std::string& name,
                        const std::string& as) -> Status {
    const std::string to = (fs::path(state) / as).string();
    const auto found = copy_file((fs::path(backup) / name).string(), to);
    if (!found) {
      return found.error();
    }
    ++saved.files;
    saved.bytes += size_of(to);
    return *found == sum ? Status(Ok{}) : differs((fs::path(backup) / name).string());
  };
  Status done = for_each_sum(backup, [&](const std::string& sum, const std::string& name) {
    return name == kAbout ? Status(Ok{})
                          : copy(sum, name, name == "jobs.db" ? "jobs.db.new" : name);
  });
  if (done) {
    fs::rename(state + "/jobs.db.new", state + "/jobs.db", none);
    done = none ? Status(Error{state + "/jobs.db cannot be put in place: " + none.message()})
                : flush_folder(state);
  }
  return done ? Result<Saved>(saved) : done.error();
}

void belong_as(const std::string& path, const std::string& like) {
  struct stat status {};
  if (::stat(like.c_str(), &status) == 0) {
    [[maybe_unused]] const int given = ::chown(path.c_str(), status.st_uid, status.st_gid);
  }
}

}  // namespace penstock::queue
