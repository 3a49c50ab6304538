// What doctor says: for people, fit to be pasted into a public place, and for programs. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "doctor/causes.h"
#include "doctor/facts.h"

namespace steelyard::doctor {

// "you get 14.0 tokens/s; this machine's limit for this file is 37.9; 63 % of the time goes to …".
std::string headline(const Facts& facts, const std::vector<Finding>& findings);

std::string to_text(const Facts& facts, const std::vector<Finding>& findings);
nlohmann::ordered_json to_json(const Facts& facts, const std::vector<Finding>& findings);

// A file's name without the folders before it, which may name their owner; a digest cut short.
std::string redacted(const std::string& path);

}  // namespace steelyard::doctor
