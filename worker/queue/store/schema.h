// The database under the tables: opened, looked at for damage, and brought to this version's
// schema. FORMAT.md says what each table holds.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

// Opens the database, or begins a new one. A file that is damaged, or is no database of ours, is
// set aside together with the results it tells of, and `notices` says so. `check`: every page is
// read to find that out; else only what opening it needs. Errors: the file cannot be read, and may
// be as good as ever; or it is of a newer schema. `vfs` is SQLite's; empty: the default.
Result<Database> open_database(const std::string& path, const std::string& vfs, bool check,
                               std::vector<std::string>& notices);

// That of a database of this penstockd (user_version).
int schema_version();
// Whether its application_id is ours.
bool is_ours(std::string_view application_id);

}  // namespace penstock::queue
