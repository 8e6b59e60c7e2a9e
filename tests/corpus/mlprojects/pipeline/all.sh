set -e
python steps.py prepare --rows 2 > prepared.txt
python steps.py train --lr "$1" --rows 2
