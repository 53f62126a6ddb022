// A backup: a folder with a copy of the state, its digests beside it.
//
//   BACKUP/jobs.db, secret, results/   as in a state (store/FORMAT.md)
//   BACKUP/backup.json                 {"penstock":"0.1.0","schema":7,"made":"2026-11-30T…Z"}
//   BACKUP/SHA256SUMS                  of all of these, as `sha256sum -c` reads it; written last
#pragma once

#include <cstdint>
#include <string>

#include "shared/base/result.h"

namespace penstock::queue {

struct Saved {
  int64_t files = 0;
  int64_t bytes = 0;
};

bool is_backup(const std::string& folder);

// Takes the copy in `from`, made by a penstockd, to `to`, which is not there yet or empty. On disk
// when this returns; until then nothing of that name is there.
Result<Saved> save_backup(const std::string& from, const std::string& to);

// Whether all its files are as they were written: how many there are. The Error names the first
// that is not.
Result<int64_t> check_sums(const std::string& backup);

// Makes `state` of it, which has no jobs yet: every file is checked as it is copied, and the
// database comes last. Users and groups are the files', where the caller may give them.
Result<Saved> restore_backup(const std::string& backup, const std::string& state);

// Copies a file, with its mode, and its owner where that may be; on disk when this returns. Its
// SHA-256, in hexadecimal digits. `to` is not there yet.
Result<std::string> copy_file(const std::string& from, const std::string& to);
// Gives a path the owner and group of another, as far as this process may.
void belong_as(const std::string& path, const std::string& like);

}  // namespace penstock::queue
