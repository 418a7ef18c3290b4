# A model in jq, for one input on a line or, with --batch, for an array of them:
#   rv-score --exec 'jq --compact-output --unbuffered --from-file iris.jq' --batch 64
def classify:
  if type != "object" then {error: "modelInput is not an object"}
  elif [.petalLength, .petalWidth] | all(type == "number") | not then
    {error: "petalLength or petalWidth is not a number"}
  elif .petalLength < 2.45 then {result: 0, confidence: 1}
  elif .petalWidth < 1.75 then {result: 1, confidence: 0.91}
  else {result: 2, confidence: 0.98}
  end;
if type == "array" then map(classify) else classify end
