// FaultVfs: a SQLite VFS (https://sqlite.org/vfs.html) over the default one that makes one write,
// sync or truncation go wrong, the N-th from when it was armed:
//
//   kFail   it fails, and those after it succeed again
//   kShort  half of it is written, then it fails; those after it succeed again
//   kDrop   it fails, and if it is a sync, what it was to write never comes to the disk: the next
//           sync says nothing of it, and reads still see it (https://lwn.net/Articles/752063/)
//   kCrash  the power fails: whatever was not synced is gone from every file, and nothing works any
//           more until the files are opened anew
//
// One at a time, for one test at a time; files are small.
#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace penstock::queue {

class FaultVfs {
 public:
  enum class Fault { kNone, kFail, kShort, kDrop, kCrash };
  static constexpr char kName[] = "penstock-fault";

  static FaultVfs& instance() {
    static FaultVfs vfs;
    return vfs;
  }

  // From now on; `at` 0 is the next operation, or the next sync.
  void arm(Fault fault, int at, bool syncs_only = false, int times = 1) {
    const std::lock_guard lock(mutex_);
    times_ = times;
    syncs_only_ = syncs_only;
    fault_ = fault;
    left_ = at;
    operations_ = 0;
    crashed_ = false;
  }
  // Operations since it was armed.
  int operations() {
    const std::lock_guard lock(mutex_);
    return operations_;
  }
  bool happened() {
    const std::lock_guard lock(mutex_);
    return fault_ == Fault::kNone;
  }
  // Forgets every file: those of the next test are others.
  void reset() {
    const std::lock_guard lock(mutex_);
    fault_ = Fault::kNone;
    crashed_ = false;
    disk_.clear();
  }
  // The power fails, now.
  void crash() {
    const std::lock_guard lock(mutex_);
    cut_power();
  }
  // What was not synced is gone. The files are closed.
  void power_off() {
    const std::lock_guard lock(mutex_);
    put_back();
  }

 private:
  struct File {
    sqlite3_file base;
    std::string* path;
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };

  FaultVfs() {
    real_ = sqlite3_vfs_find(nullptr);
    vfs_ = *real_;
    vfs_.zName = kName;
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.pAppData = this;
    vfs_.xOpen = [](sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out) {
      return static_cast<FaultVfs*>(vfs->pAppData)->open(name, file, flags, out);
    };
    vfs_.xDelete = [](sqlite3_vfs* vfs, const char* name, int sync) {
      auto* self = static_cast<FaultVfs*>(vfs->pAppData);
      {  // the folder is flushed by whoever opens the store
        const std::lock_guard lock(self->mutex_);
        if (self->crashed_) {
          return SQLITE_IOERR_DELETE;
        }
        self->disk_.erase(name);
      }
      return self->real_->xDelete(self->real_, name, sync);
    };
    vfs_.xAccess = [](sqlite3_vfs* vfs, const char* name, int flags, int* out) {
      auto* self = static_cast<FaultVfs*>(vfs->pAppData);
      return self->real_->xAccess(self->real_, name, flags, out);
    };
    vfs_.xFullPathname = [](sqlite3_vfs* vfs, const char* name, int size, char* out) {
      auto* self = static_cast<FaultVfs*>(vfs->pAppData);
      return self->real_->xFullPathname(self->real_, name, size, out);
    };
    methods_.iVersion = 1;  // no shared memory: the database is opened exclusively
    methods_.xClose = [](sqlite3_file* file) {
      auto* const self = as(file);
      delete self->path;
      return self->real()->pMethods->xClose(self->real());
    };
    methods_.xRead = [](sqlite3_file* file, void* to, int size, sqlite3_int64 at) {
      return as(file)->real()->pMethods->xRead(as(file)->real(), to, size, at);
    };
    methods_.xWrite = [](sqlite3_file* file, const void* from, int size, sqlite3_int64 at) {
      const Fault fault = instance().next();
      if (fault != Fault::kNone && fault != Fault::kShort) {
        return SQLITE_IOERR_WRITE;
      }
      const int written = fault == Fault::kShort ? size / 2 : size;
      sqlite3_file* const real = as(file)->real();
      const int rc = real->pMethods->xWrite(real, from, written, at);
      instance().note(*as(file)->path,
                      {at, {static_cast<const char*>(from), static_cast<size_t>(written)}});
      return fault == Fault::kShort ? SQLITE_IOERR_WRITE : rc;
    };
    methods_.xTruncate = [](sqlite3_file* file, sqlite3_int64 size) {
      sqlite3_file* const real = as(file)->real();
      if (instance().next() != Fault::kNone) {
        return SQLITE_IOERR_TRUNCATE;
      }
      instance().note(*as(file)->path, {size, {}, true});
      return real->pMethods->xTruncate(real, size);
    };
    methods_.xSync = [](sqlite3_file* file, int flags) {
      const std::string& path = *as(file)->path;
      const Fault fault = instance().next(true);
      if (fault == Fault::kDrop) {
        instance().begin_sync(path);
      }
      if (fault != Fault::kNone) {
        return SQLITE_IOERR_FSYNC;
      }
      // What is written while it is synced is not promised.
      const auto changes = instance().begin_sync(path);
      const int rc = as(file)->real()->pMethods->xSync(as(file)->real(), flags);
      return instance().end_sync(path, changes) ? rc : SQLITE_IOERR_FSYNC;
    };
    methods_.xFileSize = [](sqlite3_file* file, sqlite3_int64* size) {
      return as(file)->real()->pMethods->xFileSize(as(file)->real(), size);
    };
    methods_.xLock = [](sqlite3_file* file, int level) {
      return as(file)->real()->pMethods->xLock(as(file)->real(), level);
    };
    methods_.xUnlock = [](sqlite3_file* file, int level) {
      return as(file)->real()->pMethods->xUnlock(as(file)->real(), level);
    };
    methods_.xCheckReservedLock = [](sqlite3_file* file, int* out) {
      return as(file)->real()->pMethods->xCheckReservedLock(as(file)->real(), out);
    };
    methods_.xFileControl = [](sqlite3_file* file, int op, void* arg) {
      return as(file)->real()->pMethods->xFileControl(as(file)->real(), op, arg);
    };
    methods_.xSectorSize = [](sqlite3_file* file) {
      return as(file)->real()->pMethods->xSectorSize(as(file)->real());
    };
    methods_.xDeviceCharacteristics = [](sqlite3_file*) { return 0; };  // it promises nothing
    sqlite3_vfs_register(&vfs_, 0);
  }

  static File* as(sqlite3_file* file) { return reinterpret_cast<File*>(file); }

  int open(const char* name, sqlite3_file* file, int flags, int* out) {
    auto* const mine = as(file);
    mine->base.pMethods = nullptr;
    const int rc = real_->xOpen(real_, name, mine->real(), flags, out);
    if (rc == SQLITE_OK) {
      mine->path = new std::string(name == nullptr ? "" : name);
      mine->base.pMethods = &methods_;
      const std::lock_guard lock(mutex_);
      disk_.try_emplace(*mine->path, Disk{content(*mine->path), {}});
    }
    return rc;
  }

  // What becomes of this operation.
  Fault next(bool sync = false) {
    const std::lock_guard lock(mutex_);
    if (crashed_) {
      return Fault::kFail;
    }
    if (syncs_only_ && !sync) {
      return Fault::kNone;
    }
    ++operations_;
    if (fault_ == Fault::kNone || left_-- > 0) {
      return Fault::kNone;
    }
    const Fault fault = fault_;
    if (--times_ == 0) {
      fault_ = Fault::kNone;
    }
    if (fault == Fault::kCrash) {
      cut_power();
    }
    return fault;
  }

  void cut_power() {
    crashed_ = true;
    put_back();
  }
  void put_back() {
    for (const auto& [path, disk] : disk_) {
      std::ofstream(path, std::ios::binary | std::ios::trunc) << disk.synced;
    }
  }

  struct Change {
    sqlite3_int64 at;
    std::string bytes;
    bool cut = false;  // the file ends at `at`
  };
  struct Disk {
    std::string synced;
    std::vector<Change> changes;  // since
  };

  void note(const std::string& path, Change change) {
    const std::lock_guard lock(mutex_);
    disk_[path].changes.push_back(std::move(change));
  }
  std::vector<Change> begin_sync(const std::string& path) {
    const std::lock_guard lock(mutex_);
    return std::exchange(disk_[path].changes, {});
  }
  // False: the power failed meanwhile.
  bool end_sync(const std::string& path, const std::vector<Change>& changes) {
    const std::lock_guard lock(mutex_);
    if (crashed_) {
      return false;
    }
    std::string& bytes = disk_[path].synced;
    for (const Change& change : changes) {
      const auto at = static_cast<size_t>(change.at);
      bytes.resize(change.cut ? at : std::max(bytes.size(), at + change.bytes.size()));
      bytes.replace(at, change.bytes.size(), change.bytes);
    }
    return true;
  }

  static std::string content(const std::string& path) {
    std::ostringstream bytes;
    bytes << std::ifstream(path, std::ios::binary).rdbuf();
    return bytes.str();
  }

  sqlite3_vfs* real_ = nullptr;
  sqlite3_vfs vfs_{};
  sqlite3_io_methods methods_{};
  std::mutex mutex_;
  Fault fault_ = Fault::kNone;
  int left_ = 0;
  bool syncs_only_ = false;
  int times_ = 1;
  int operations_ = 0;
  bool crashed_ = false;
  std::map<std::string, Disk> disk_;
};

}  // namespace penstock::queue
