"What any run needs: progress, requests to stop, several processes, random numbers."
