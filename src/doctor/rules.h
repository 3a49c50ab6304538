// The rules by which causes are recognised, in groups, for causes.cc. Each looks at the facts and says
// nothing where they don't show it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "doctor/causes.h"
#include "doctor/facts.h"

namespace steelyard::doctor {

using Found = std::optional<Finding>;
using Rule = Found (*)(const Facts& facts);

std::vector<Rule> placement_rules();  // what lies where, and how devices work together
std::vector<Rule> machine_rules();    // processor, memory, disk, heat, others
std::vector<Rule> model_rules();      // types, context, the server's work

// The setting in the words of whose it is.
std::string setting(const Facts& facts, std::string steelyard, std::string ollama, std::string llama_cpp);

// Of the devices' best rates, what the model reaches now (0.2 to 1), or usually.
double efficiency(const Facts& facts);
// Tokens/s when a token takes so long; 0 for none.
double per_second(double seconds);
// Of a token now; 0: unknown.
double token_seconds(const Facts& facts);

}  // namespace steelyard::doctor
